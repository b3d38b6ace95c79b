# shellcheck shell=bash
# What the launchers share; sourced, not run.

name=${0##*/}
run='' out=runs dry_run='' words=() more=()
# Options by name, as a script sets them: those that take a value, those that are on or off, and those that go into `more`.
values=() switches=() repeated=()

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() {
    printf '%s: error: %s\n' "$name" "$*" >&2
    exit 2
}

# The comment at the head of the script.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

# Words as one line that any POSIX shell reads back as the same words.
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

# Run a command, or in a dry run print it.
run() {
    if [[ $dry_run ]]; then
        printf '%s\n' "$(quoted "$@")"
    else
        "$@"
    fi
}

# absolute PATH: from the root, whether or not it is there.
absolute() {
    case $1 in
    /*) printf '%s' "$1" ;;
    *) printf '%s' "$PWD/$1" ;;
    esac
}

# need OPTION COUNT: an option's value must follow it.
need() { [[ $2 -gt 1 ]] || die "$1 wants a value"; }

# whole OPTION VALUE: a whole number of at least 1.
whole() { [[ $2 =~ ^[1-9][0-9]*$ ]] || die "$1 is '$2': must be a whole number of at least 1"; }

# required OPTION VALUE
required() { [[ $2 ]] || die "$1 is missing; --help tells more"; }

# parse WORD...: options into variables of their names, and what stands behind -- into `words`.
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
                die "unknown option $1; what jaxguard shall do stands behind --"
            fi
            ;;
        esac
        shift
    done
}

# listed --NAME NAME...: whether it is one of them.
listed() {
    local name
    for name in "${@:2}"; do [[ $1 == "--$name" ]] && return; done
    return 1
}

# The run's folder is OUT/RUN whoever starts it, so the same command finds its checkpoints again.
place_run() {
    required --run "$run"
    [[ $run != */* && $run != .* && $run != -* ]] || die "--run is '$run': must be the name of a folder"
    [[ ${#words[@]} -gt 0 ]] || die "nothing behind --; say what jaxguard shall do: -- train configs/NAME.py"
    case ${words[0]} in
    train | evaluate) words+=(--out "$out" --name "$run") ;;
    esac
}

# A name that clouds take.
cloud_name() {
    [[ $run =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
        die "--run is '$run': a cloud wants at most 40 of a-z, 0-9 and -, starting with a letter, ending without -"
}
