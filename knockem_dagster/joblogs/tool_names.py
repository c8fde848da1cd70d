"""What counts as a tool among the platform's own jobs. Nothing that people gave a tool is in its name.

Only what plainly is one program is called after it. All else is a tool of its own, which is the same command again.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import dropwhile
from pathlib import PurePath

COMMAND = "command"
"""Stands for the version of a program, which nobody knows."""
_SHELLS = frozenset(("bash", "sh", "dash", "zsh"))
_INTERPRETER = re.compile(r"(bash|sh|dash|zsh|python|pypy|perl|ruby|Rscript|julia|node|java)[\d.]*")
_PYTHON = re.compile(r"(python|pypy)[\d.]*")
_PYTHON_FLAGS = re.compile(r"-[bBdEIOPqsSuvx]+")
"""Those that take no value."""
_MODULE = re.compile(r"[A-Za-z_][\w.]{0,99}")
_NO_TOOLS = """
. : [ alias bg break builtin case cd command continue coproc declare dirs disown do done echo elif else enable env esac
eval exec exit export false fc fg fi for function getopts hash help history if in jobs kill let local logout mapfile ml
module popd printf pushd pwd read readarray readonly return select set shift shopt source suspend test then time times
trap true type typeset ulimit umask unalias unset until wait while

accelerate aprun apptainer busybox bwrap chroot chrt conda coverage deepspeed doas docker dumb-init fakeroot flock gdb
gosu gtime ibrun ionice jsrun just ltrace make mamba micromamba mpiexec mpirun nice nohup npm npx numactl orterun
parallel perf pipenv pipx pixi pnpm podman poetry prlimit prun qsub R rake runuser salloc sbatch screen script setpriv
setsid singularity srun ssh stdbuf strace su sudo systemd-run taskset timeout tini tmux torchrun unbuffer unshare uv uvx
valgrind watch xargs xvfb-run yarn
"""
"""Words of the shell, and programs that run another one, or whatever they are told: none of these is a tool."""
_OTHERS = frozenset(_NO_TOOLS.split())
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=[\w./:,@%+=-]*")
_PLAIN_PATH = re.compile(r"[\w./+~-]+")
_NAME = re.compile(r"\w[\w.+-]{0,99}")
_SUBSTITUTIONS = ("`", "$(", "$'", '$"', "\n", "\r", "\0")
_QUOTING = re.compile(r"""['"\\]""")
_WORD = re.compile(r"[();<>|&]+|[^ \t();<>|&]+")
"""The same as shlex finds where nothing is quoted, in a tenth of the time: there may be many commands."""
_OPERATOR = re.compile(r"[();<>|&]+")
_REDIRECTIONS = frozenset(("<", ">", ">>", ">&", "&>"))
_LONGEST = 10_000
"""Characters of a command that is looked at: a longer one is a script."""


def tool_of_image(image: str) -> str:
    """Return the tool that an image is; of a folder, its name."""
    return PurePath(image).name if image.startswith(("/", ".", "~")) else image


def tool_of_command(command: Sequence[str]) -> str:
    """Return the tool that a command is: its program, and the script or module where that is one's interpreter.

    Of whatever is more than that, or may be, a digest of the whole: nothing of its text.
    """
    is_shell = len(command) == 3 and PurePath(command[0]).name in _SHELLS and command[1] == "-c"
    words = _words(command[2]) if is_shell else list(command)
    return _tool(words) or f"{COMMAND} {hashlib.sha256(repr(tuple(command)).encode()).hexdigest()[:16]}"


def _words(text: str) -> list[str]:
    """Return the words of a single command as its shell will read them, without its assignments; else none."""
    text = text.strip().replace("\\\n", " ")
    if len(text) > _LONGEST or any(each in text for each in _SUBSTITUTIONS):
        return []
    # As they are written: a value in quotes is for the shell to read, and whose end it is would be a guess.
    text = " ".join(_without_assignments(text.split(" ")))
    try:
        words = _split(text) if _QUOTING.search(text) else _WORD.findall(text)
    except ValueError:
        return []
    is_joined = any(_OPERATOR.fullmatch(word) and word not in _REDIRECTIONS for word in words)
    return [] if is_joined else words


def _split(text: str) -> list[str]:
    """Return words and operators, unquoted. Raises ValueError where a quotation has no end."""
    split = shlex.shlex(text, posix=True, punctuation_chars=True)
    split.whitespace_split = True
    split.commenters = ""
    return list(split)


def _without_assignments(words: Iterable[str]) -> list[str]:
    return list(dropwhile(lambda word: not word or _ASSIGNMENT.fullmatch(word) is not None, words))


def _tool(words: Sequence[str]) -> str:
    """Return what words plainly run; empty where they do not."""
    if words and _name(words[0]) == "env":
        words = _without_assignments(words[1:])
    program = _name(words[0]) if words else ""
    if not program or program in _OTHERS:
        return ""
    if _INTERPRETER.fullmatch(program) is None:
        return program
    script = _script(program, words[1:])
    return f"{program} {script}" if script else ""


def _script(program: str, words: Sequence[str]) -> str:
    """Return what an interpreter is given to run: a script, a module or an archive; empty for anything else."""
    if _PYTHON.fullmatch(program) is not None:
        words = list(dropwhile(_PYTHON_FLAGS.fullmatch, words))
        if len(words) > 1 and words[0] == "-m":
            return f"-m {words[1]}" if _MODULE.fullmatch(words[1]) else ""
    if program == "java" and len(words) > 1 and words[0] == "-jar":
        words = words[1:]
    return _name(words[0]) if words else ""


def _name(word: str) -> str:
    """Return the name of a program or a script; empty for a word that is none as it stands."""
    name = PurePath(word).name
    return name if _PLAIN_PATH.fullmatch(word) and _NAME.fullmatch(name) else ""
