"""`completion SHELL`: the completion of commands and options, made from their parsers."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence

from emulator.cli.az.families import commands_of
from emulator.cli.az.faults import KINDS
from emulator.cli.commands import AZ_COMMANDS, COMMANDS, function_of
from emulator.cli.output import say
from emulator.cli.parser import Parser

_DESCRIPTION = """\
Print the completion of commands and options for a shell. Each console
evaluates it at its start.
"""
_EPILOG = """\
examples:
  %(prog)s fish | source
      in ~/.config/fish/config.fish
  source <(%(prog)s bash)
      in ~/.bashrc; in ~/.zshrc with zsh, below compinit
  %(prog)s powershell | Out-String | Invoke-Expression
      in $PROFILE
"""

# The words of commands that have others in them, and no table.
_INNER = {
    "config": ("check", "apply", "schema"),
    "ca": ("path", "print", "create", "issue", "verify"),
}
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][a-z-]*")

_BASH = """\
_iothub_emulator() {
    local path="" word
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$word" in -*) break ;; *) path="${path:+$path }$word" ;; esac
    done
    local words=""
    case "$path" in
@TABLE@
    esac
    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _iothub_emulator iothub-emulator"""
_ZSH = """\
#compdef iothub-emulator
_iothub_emulator() {
    local path_="" word_ found
    for word_ in "${(@)words[2,CURRENT-1]}"; do
        case "$word_" in (-*) break ;; (*) path_="${path_:+$path_ }$word_" ;; esac
    done
    case "$path_" in
@TABLE@
    esac
    compadd -- ${=found}
    if [[ "$words[CURRENT-1]" == -* ]]; then _files; fi
}
compdef _iothub_emulator iothub-emulator"""
_FISH = """\
function __iothub_emulator_words
    set -l path
    for word in (commandline -opc)[2..]
        string match -q -- '-*' $word; and break
        set -a path $word
    end
    switch "$path"
@TABLE@
    end
end
complete -c iothub-emulator -f -n 'not string match -q -- "-*" (commandline -opc)[-1]'
complete -c iothub-emulator -a '(__iothub_emulator_words)'"""
_POWERSHELL = """\
Register-ArgumentCompleter -Native -CommandName iothub-emulator -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @{
@TABLE@
    }
    $path = @()
    foreach ($each in $commandAst.CommandElements | Select-Object -Skip 1) {
        $text = "$each"
        if ($text -like '-*' -or $each.Extent.EndOffset -ge $cursorPosition) { break }
        $path += $text
    }
    "$($words[$path -join ' '])" -split ' ' | Where-Object { $_ -and $_ -like "$wordToComplete*" } |
        ForEach-Object { [System.Management.Automation.CompletionResult]::new($_) }
}"""
# A script, and a line of its table, with a path and the words that can follow.
_SHELLS = {
    "bash": (_BASH, '        "{0}") words="{1}" ;;'),
    "zsh": (_ZSH, '        ("{0}") found="{1}" ;;'),
    "fish": (_FISH, "        case '{0}'\n            printf '%s\\n' {1}"),
    "powershell": (_POWERSHELL, "        '{0}' = '{1}'"),
}


def main(arguments: Sequence[str]) -> int:
    """Print the script of a shell."""
    parser = Parser("completion", _DESCRIPTION, _EPILOG)
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))
    script, line = _SHELLS[parser.parse_known(arguments).shell]
    table = "\n".join(line.format(path, " ".join(words)) for path, words in _table())
    say(script.replace("@TABLE@", table))
    return 0


def _table() -> Iterator[tuple[str, list[str]]]:
    """Return what can follow the words of each command; a command has its options last."""
    of_hub = _options(["--help"], "")
    paths: dict[tuple[str, ...], list[str]] = {("start",): of_hub, ("tutorial",): of_hub}
    for name in COMMANDS:
        paths[name,] = _options(["--help"], name)
        for inner in _INNER.get(name, ()):
            paths[name, inner] = _options([inner, "--help"], name)
    paths["completion",] += list(_SHELLS)
    for name in (*COMMANDS, *AZ_COMMANDS):
        for command in commands_of(name):
            words = command.words.split()
            paths[tuple(words)] = _options([*words[1:], "--help"], name)
    paths |= {("fault", "add", kind): paths["fault", "add"] for kind in KINDS}
    paths[()] = of_hub
    following: dict[str, list[str]] = {}
    for path in paths:
        for at, word in enumerate(path):
            known = following.setdefault(" ".join(path[:at]), [])
            if word not in known:
                known.append(word)
    for path, options in paths.items():
        following.setdefault(" ".join(path), []).extend(options)
    yield from following.items()


def _options(arguments: Sequence[str], name: str) -> list[str]:
    """Return the options in the help of a command."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        if name:
            function_of(name)(arguments)
        else:
            from emulator.cli.options import parse

            parse(arguments)
    lines = output.getvalue().partition("\noptions:\n")[2].partition("\n\n")[0].splitlines()
    found = [each for line in lines if line.startswith("  -") for each in _names(line)]
    return sorted(dict.fromkeys(found), key=lambda each: (not each.startswith("--"), each))


def _names(line: str) -> list[str]:
    # Two spaces divide the names of an option from its help.
    return _OPTION.findall(re.split(r"(?<=\S) {2,}", line)[0])
