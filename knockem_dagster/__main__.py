"""`python -m knockem_dagster`: the command line."""

from knockem_dagster.cli.main import main

if __name__ == "__main__":
    main()
