"""What a digital-evolution system finds in its container, to fetch genomes and report competitions.

Mounted read-only; standard library only, for any Python from 3.6 on. Nothing here reaches outside
the container: genomes are files that were put there, and a report is a file that is read afterwards.
"""
