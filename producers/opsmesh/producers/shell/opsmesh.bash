# opsmesh: tells commands that fail in an interactive bash, from 5.1 up. docs/producers/shell.md
#
# No DEBUG trap, no fork: PS0 notes when a command begins, an element of the PROMPT_COMMAND array
# looks at how it ended. So starship, bash-preexec and traps of the user's own are not touched,
# whoever was there first. bash gives $? and PIPESTATUS anew to each element of that array, so the
# others see what they would see without us.

if [[ -n ${BASH_VERSION-} && $- == *i* ]] &&
    ((BASH_VERSINFO[0] > 5 || BASH_VERSINFO[0] == 5 && BASH_VERSINFO[1] >= 1)); then

    # Where router.paths has it. Without this folder, which the producer makes, nothing is written.
    __opsmesh_inbox=${XDG_STATE_HOME-}
    [[ $__opsmesh_inbox == /* ]] || __opsmesh_inbox=${HOME-}/.local/state
    __opsmesh_inbox+=/opsmesh/producers/shell/inbox
    # Longest command, and size of a file from which on a new one is begun; both in bytes.
    __opsmesh_longest=8192 __opsmesh_full=131072
    __opsmesh_name=bash-$$-${EPOCHREALTIME//[!0-9]/}
    __opsmesh_file=1 __opsmesh_size=0 __opsmesh_lost=0
    __opsmesh_none='' __opsmesh_began='' __opsmesh_entry=0 __opsmesh_cwd=$PWD __opsmesh_number=${HISTCMD-}
    __opsmesh_ps0='${__opsmesh_none:$((__opsmesh_began=${EPOCHREALTIME//[!0-9]/},__opsmesh_entry=HISTCMD,0)):0}'

    # The text as a JSON string, in REPLY; LC_ALL must be C. Bytes that are no UTF-8 stay: the producer replaces them.
    __opsmesh_json() {
        local back='\' quote='"' code from to
        REPLY=${1:0:__opsmesh_longest}
        REPLY=${REPLY//"$back"/"$back$back"}
        REPLY=${REPLY//"$quote"/"$back$quote"}
        if [[ $REPLY == *[$'\001'-$'\037'$'\177']* ]]; then
            for code in {1..31} 127; do
                builtin printf -v from '\\x%02x' "$code"
                builtin printf -v from '%b' "$from"
                [[ $REPLY == *"$from"* ]] || continue
                builtin printf -v to '\\u%04x' "$code"
                REPLY=${REPLY//"$from"/"$to"}
            done
        fi
        REPLY="\"$REPLY\""
    }

    # What was typed, in REPLY; empty when it cannot be known. The history has not grown after a
    # command that HISTCONTROL or HISTIGNORE kept out of it, nor after one that was just repeated:
    # only where nothing but repetition can be the cause is the last entry that command.
    __opsmesh_typed() {
        local scratch=$__opsmesh_inbox/.bash-$$ HISTTIMEFORMAT=
        REPLY=
        [[ -o history ]] || return 0
        # Since it began, the history was changed: by `history -n` in PROMPT_COMMAND, for one.
        [[ $1 == "$__opsmesh_entry" ]] || return 0
        if [[ $1 == "$__opsmesh_number" ]]; then
            case ${HISTCONTROL-} in *ignorespace* | *ignoreboth* | *erasedups*) return 0 ;; esac
            [[ -z ${HISTIGNORE-} ]] || return 0
        fi
        builtin history 1 >|"$scratch" || return 0
        IFS= builtin read -r -d '' REPLY <"$scratch"
        : >|"$scratch"
        REPLY=${REPLY#"${REPLY%%[0-9]*}"} # "  501  the command": blanks, its number, two more
        REPLY=${REPLY#"${REPLY%%[!0-9]*}"}
        REPLY=${REPLY:2}
        REPLY=${REPLY%$'\n'}
        [[ $REPLY != ' '* ]] || REPLY= # typed with a space before it: private
    }

    __opsmesh_failed() {
        local - # options that are changed here are changed back
        set +eu
        local LC_ALL=C REPLY line exit=$1 began=$2 ended=$3
        [[ -d $__opsmesh_inbox ]] || return 0
        if ((__opsmesh_size > __opsmesh_full)); then
            # The file before this one is still there: nobody reads.
            if ((__opsmesh_file > 1)) &&
                [[ -e $__opsmesh_inbox/$__opsmesh_name.$((__opsmesh_file - 1)).jsonl ]]; then
                ((__opsmesh_lost += 1))
                return 0
            fi
            ((__opsmesh_file += 1, __opsmesh_size = 0))
        fi
        __opsmesh_typed "$4"
        __opsmesh_json "$REPLY"
        line="{\"exit\":$exit,\"at\":$ended,\"us\":$((ended - began)),\"lost\":$__opsmesh_lost"
        line+=",\"command\":$REPLY"
        __opsmesh_json "$__opsmesh_cwd"
        line+=",\"cwd\":$REPLY$__opsmesh_where}"
        # Opened by its name each time, and begun with a new line: a line that was cut, by a full
        # disk or a kill, does not spoil the next.
        if builtin printf '\n%s\n' "$line" >>"$__opsmesh_inbox/$__opsmesh_name.$__opsmesh_file.jsonl"; then
            ((__opsmesh_size += ${#line} + 2, __opsmesh_lost = 0, 1))
        else
            ((__opsmesh_lost += 1))
        fi
    }

    __opsmesh_prompt() {
        local exit=$? ended=$EPOCHREALTIME number=${HISTCMD-} began=${__opsmesh_began-}
        __opsmesh_began=
        # Nothing began when Enter was pressed on an empty line, and after a syntax error.
        if [[ $exit != 0 && -n $began ]]; then
            __opsmesh_failed "$exit" "$began" "${ended//[!0-9]/}" "$number" || :
        fi
        __opsmesh_number=$number __opsmesh_cwd=$PWD
        if [[ ${PS0-} != *__opsmesh_began* ]]; then # somebody has set it anew
            PS0=${PS0-}$__opsmesh_ps0
        fi
        return 0
    }

    # The terminal, without a fork: which of them is standard input?
    __opsmesh_tty=
    for __opsmesh_each in /dev/pts/[0-9]* /dev/tty[0-9]*; do
        if [[ $__opsmesh_each -ef /dev/fd/0 ]]; then
            __opsmesh_tty=$__opsmesh_each
            break
        fi
    done
    unset -v __opsmesh_each

    # Where this shell is: that does not change as long as it lives.
    __opsmesh_place() {
        local LC_ALL=C REPLY each
        __opsmesh_where=
        for each in TERM ZELLIJ_SESSION_NAME ZELLIJ_PANE_ID TMUX TMUX_PANE STY WINDOW KITTY_WINDOW_ID \
            WEZTERM_PANE XDG_SESSION_ID OPSMESH_SESSION OPSMESH_EDITOR_SESSION OPSMESH_WORKSPACE; do
            [[ -n ${!each-} ]] || continue
            __opsmesh_json "${!each}"
            __opsmesh_where+=",\"$each\":$REPLY"
        done
        __opsmesh_json "$__opsmesh_tty"
        __opsmesh_where+=",\"tty\":$REPLY"
    }
    __opsmesh_place

    if shopt -q promptvars; then
        [[ ${PS0-} == *__opsmesh_began* ]] || PS0=${PS0-}$__opsmesh_ps0
        if [[ "${PROMPT_COMMAND[*]-}" != *__opsmesh_prompt* ]]; then
            # Never the first element: `PROMPT_COMMAND=…` in what comes later means that one.
            # The redirection hides `set -x` and every error; standard output is not touched.
            if ((${#PROMPT_COMMAND[@]})); then
                PROMPT_COMMAND+=('{ __opsmesh_prompt; } 2>/dev/null')
            else
                PROMPT_COMMAND=([1]='{ __opsmesh_prompt; } 2>/dev/null')
            fi
        fi
    fi
fi
