# opsmesh: tells commands that fail in an interactive zsh. docs/producers/shell.md
#
# Two functions beside those of others in preexec_functions and precmd_functions; no fork.

if [[ -o interactive ]] && zmodload zsh/datetime 2>/dev/null; then
    # Where router.paths has it. Without this folder, which the producer makes, nothing is written.
    typeset -g __opsmesh_inbox=${XDG_STATE_HOME-}
    [[ $__opsmesh_inbox == /* ]] || __opsmesh_inbox=${HOME-}/.local/state
    __opsmesh_inbox+=/opsmesh/producers/shell/inbox
    # Longest command, and size of a file from which on a new one is begun; both in bytes.
    typeset -gi __opsmesh_longest=8192 __opsmesh_full=131072
    typeset -gi __opsmesh_file=1 __opsmesh_size=0 __opsmesh_lost=0
    typeset -g __opsmesh_name=zsh-$$-${EPOCHREALTIME//[^0-9]/}
    typeset -g __opsmesh_command= __opsmesh_cwd= __opsmesh_began=

    # The text as a JSON string, in REPLY. Bytes that are no UTF-8 stay: the producer replaces them.
    __opsmesh_json() {
        emulate -L zsh
        setopt no_multibyte
        local back='\' from to
        local -i code
        REPLY=${1[1,__opsmesh_longest]}
        REPLY=${REPLY//$back/$back$back}
        REPLY=${REPLY//\"/$back\"}
        if [[ $REPLY == *[$'\x00'-$'\x1f'$'\x7f']* ]]; then
            for code in {0..31} 127; do
                builtin printf -v to '\\x%02x' $code
                builtin printf -v from '%b' $to
                [[ $REPLY == *$from* ]] || continue
                builtin printf -v to '\\u%04x' $code
                REPLY=${REPLY//$from/$to}
            done
        fi
        REPLY="\"$REPLY\""
    }

    # Where this shell is: that does not change as long as it lives.
    __opsmesh_place() {
        emulate -L zsh
        local REPLY each
        typeset -g __opsmesh_where=
        for each in TERM ZELLIJ_SESSION_NAME ZELLIJ_PANE_ID TMUX TMUX_PANE STY WINDOW KITTY_WINDOW_ID \
            WEZTERM_PANE XDG_SESSION_ID OPSMESH_SESSION OPSMESH_EDITOR_SESSION OPSMESH_WORKSPACE; do
            [[ -n ${(P)each-} ]] || continue
            __opsmesh_json "${(P)each}"
            __opsmesh_where+=",\"$each\":$REPLY"
        done
        __opsmesh_json "${TTY-}"
        __opsmesh_where+=",\"tty\":$REPLY"
    }
    __opsmesh_place

    __opsmesh_failed() {
        emulate -L zsh
        setopt no_multibyte
        local REPLY line
        local -i exit=$1 ended=$2 began=$3
        [[ -d $__opsmesh_inbox ]] || return 0
        if (( __opsmesh_size > __opsmesh_full )); then
            # The file before this one is still there: nobody reads.
            if (( __opsmesh_file > 1 )) &&
                [[ -e $__opsmesh_inbox/$__opsmesh_name.$(( __opsmesh_file - 1 )).jsonl ]]; then
                (( __opsmesh_lost += 1 ))
                return 0
            fi
            (( __opsmesh_file += 1, __opsmesh_size = 0 ))
        fi
        __opsmesh_json "$4"
        line="{\"exit\":$exit,\"at\":$ended,\"us\":$(( ended - began )),\"lost\":$__opsmesh_lost"
        line+=",\"command\":$REPLY"
        __opsmesh_json "$__opsmesh_cwd"
        line+=",\"cwd\":$REPLY$__opsmesh_where}"
        # Opened by its name each time, and begun with a new line: a line that was cut, by a full
        # disk or a kill, does not spoil the next.
        if builtin print -r -- $'\n'"$line" >>|"$__opsmesh_inbox/$__opsmesh_name.$__opsmesh_file.jsonl"; then
            (( __opsmesh_size += ${#line} + 2, __opsmesh_lost = 0, 1 ))
        else
            (( __opsmesh_lost += 1 ))
        fi
    }

    # $1 is what was typed, also when the history does not keep it.
    __opsmesh_preexec() {
        { emulate -L zsh } 2>/dev/null
        __opsmesh_command=$1 __opsmesh_cwd=$PWD __opsmesh_began=$EPOCHREALTIME
        [[ $1 != ' '* ]] || __opsmesh_command= # typed with a space before it: private
    }

    __opsmesh_precmd() {
        local exit=$? ended=$EPOCHREALTIME
        { emulate -L zsh } 2>/dev/null
        # Nothing began when Enter was pressed on an empty line, and after a syntax error.
        if [[ $exit != 0 && -n $__opsmesh_began ]]; then
            { __opsmesh_failed $exit $(( ended * 1000000 )) $(( __opsmesh_began * 1000000 )) \
                "$__opsmesh_command" } 2>/dev/null || :
        fi
        __opsmesh_began= __opsmesh_command=
        return 0
    }

    typeset -ga preexec_functions precmd_functions
    (( ${preexec_functions[(Ie)__opsmesh_preexec]} )) || preexec_functions+=(__opsmesh_preexec)
    (( ${precmd_functions[(Ie)__opsmesh_precmd]} )) || precmd_functions+=(__opsmesh_precmd)
fi
