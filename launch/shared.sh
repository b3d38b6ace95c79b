# shellcheck shell=bash
# Functions of the launchers; source this file, do not run it.

name=${0##*/}
run='' out=runs dry_run='' words=() more=()
# Names of the options of a script: with a value, without a value, and repeatable (collected in `more`).
values=() switches=() repeated=()

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() {
    printf '%s: error: %s\n' "$name" "$*" >&2
    exit 2
}

# Print the comment at the head of the script.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

# Quote words as one line for any POSIX shell.
quoted() {
    local word line=
    for word in "$@"; do
        if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
            line+=" $word"
        else
            line+=" '${word//\'/\'\\\'\'}'"
        fi
    done
    printf '%s' "${line# }"
}

# Run a command, or print it in a dry run.
run() {
    if [[ $dry_run ]]; then
        printf '%s\n' "$(quoted "$@")"
    else
        "$@"
    fi
}

# absolute PATH: print it as an absolute path; it need not exist.
absolute() {
    case $1 in
    /*) printf '%s' "$1" ;;
    *) printf '%s' "$PWD/$1" ;;
    esac
}

# need OPTION COUNT: check that a value follows the option.
need() { [[ $2 -gt 1 ]] || die "$1 needs a value"; }

# whole OPTION VALUE: check that the value is a whole number of at least 1.
whole() { [[ $2 =~ ^[1-9][0-9]*$ ]] || die "$1 is '$2': must be a whole number of at least 1"; }

# required OPTION VALUE: check that the value is set.
required() { [[ $2 ]] || die "$1 is missing; see --help"; }

# parse WORD...: set the variable of each option, and `words` to the words after --.
parse() {
    local option
    while [[ $# -gt 0 ]]; do
        option=${1#--}
        case $1 in
        --dry-run) dry_run=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        --)
            shift
            words=("$@")
            break
            ;;
        *)
            if listed "$1" "${values[@]}"; then
                need "$1" $#
                printf -v "$option" %s "$2"
                shift
            elif listed "$1" "${repeated[@]}"; then
                need "$1" $#
                more+=("$2")
                shift
            elif listed "$1" "${switches[@]}"; then
                printf -v "$option" yes
            else
                die "unknown option $1; put the arguments of jaxguard after --"
            fi
            ;;
        esac
        shift
    done
}

# listed --NAME NAME...: succeed if NAME is in the list.
listed() {
    local name
    for name in "${@:2}"; do [[ $1 == "--$name" ]] && return; done
    return 1
}

# checked here|elsewhere: check the arguments of jaxguard as the job will, before anything is made. Elsewhere, model and
# data may be on the workers alone.
checked() {
    local python=${PYTHON:-python3} place=() code
    [[ $1 == here ]] || place=(--elsewhere)
    "$python" -c 'import jaxguard' 2>/dev/null ||
        die "$python has no jaxguard to check the arguments with; install it, or set PYTHON to one that has it"
    "$python" -m jaxguard check "${place[@]}" "${words[@]}" >&2
    code=$?
    [[ $code -eq 0 ]] || exit "$code"
}

# committed REPOSITORY: check that the files that the arguments name are committed as they are here; name other changes.
committed() {
    local word left
    for word in "${words[@]}"; do
        [[ $word != -* && -e $1/$word ]] || continue
        git -C "$1" ls-files --error-unmatch -- "$word" >/dev/null 2>&1 ||
            die "$word is not committed, and the workers get the committed code: git add and commit it"
        git -C "$1" diff --quiet HEAD -- "$word" ||
            die "$word has changes that are not committed, and the workers get the committed code: commit them"
    done
    left=$(git -C "$1" status --short -- jaxguard configs pyproject.toml)
    [[ -z $left ]] || say "left behind, because it is not committed: ${left//$'\n'/, }"
}

# Set the run folder to OUT/RUN, so that the same command finds its checkpoints again.
place_run() {
    required --run "$run"
    [[ $run != */* && $run != .* && $run != -* ]] || die "--run is '$run': must be the name of a folder"
    [[ ${#words[@]} -gt 0 ]] || die "no arguments after --; give those of jaxguard: -- train configs/NAME.py"
    case ${words[0]} in
    train | evaluate) words+=(--out "$out" --name "$run") ;;
    esac
}

# Check that the run's name is valid for cloud resources.
cloud_name() {
    [[ $run =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
        die "--run is '$run': must be at most 40 of a-z, 0-9 and -, starting with a letter, not ending with -"
}
