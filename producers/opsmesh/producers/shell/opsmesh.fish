# opsmesh: tells commands that fail in an interactive fish. docs/producers/shell.md
#
# Two functions on fish's own events; every command in them is a builtin, so nothing is forked.

if status is-interactive
    # Where router.paths has it. Without this folder, which the producer makes, nothing is written.
    set -g __opsmesh_inbox $HOME/.local/state/opsmesh/producers/shell/inbox
    string match -q '/*' -- "$XDG_STATE_HOME"
    and set -g __opsmesh_inbox $XDG_STATE_HOME/opsmesh/producers/shell/inbox
    # Longest command in characters; size of a file, in characters, from which on a new one is begun.
    set -g __opsmesh_longest 8192
    set -g __opsmesh_full 131072
    set -g __opsmesh_name fish-$fish_pid-(random 100000000 999999999)
    set -g __opsmesh_file 1
    set -g __opsmesh_size 0
    set -g __opsmesh_lost 0
    set -g __opsmesh_cwd $PWD
    set -g __opsmesh_status 0

    # The text as a JSON string. Bytes that are no UTF-8 stay: the producer replaces them.
    function __opsmesh_json
        # A command substitution gives a text as its lines.
        set -l lines (string sub -l $__opsmesh_longest -- "$argv[1]")
        set lines (string replace -a '\\' '\\\\' -- $lines | string replace -a '"' '\\"')
        set -l text (string join '\\n' -- $lines)
        if string match -qr '[\x01-\x1f\x7f]' -- "$text"
            for code in 01 02 03 04 05 06 07 08 09 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17 18 19 \
                1a 1b 1c 1d 1e 1f 7f
                set -l from (printf "\\x$code")
                set text (string replace -a -- $from "\\u00$code" "$text")
            end
        end
        echo -- "\"$text\""
    end

    # Where this shell is: that does not change as long as it lives.
    set -g __opsmesh_where
    for each in TERM ZELLIJ_SESSION_NAME ZELLIJ_PANE_ID TMUX TMUX_PANE STY WINDOW KITTY_WINDOW_ID \
        WEZTERM_PANE XDG_SESSION_ID OPSMESH_SESSION OPSMESH_EDITOR_SESSION OPSMESH_WORKSPACE
        if test -n "$$each"
            set __opsmesh_where "$__opsmesh_where,\"$each\":"(__opsmesh_json "$$each")
        end
    end
    set __opsmesh_where "$__opsmesh_where,\"tty\":"(__opsmesh_json (path resolve /dev/fd/0))"}"

    function __opsmesh_failed -a exit us command
        # fish says on the terminal what it cannot redirect to, whatever we ask of it: so look first.
        test -d "$__opsmesh_inbox" -a -w "$__opsmesh_inbox"
        or return 0
        if test $__opsmesh_size -gt $__opsmesh_full
            # The file before this one is still there: nobody reads.
            if test $__opsmesh_file -gt 1
                and test -e $__opsmesh_inbox/$__opsmesh_name.(math $__opsmesh_file - 1).jsonl
                set __opsmesh_lost (math $__opsmesh_lost + 1)
                return 0
            end
            set __opsmesh_file (math $__opsmesh_file + 1)
            set __opsmesh_size 0
        end
        # fish has no clock: a file that is written now has the second.
        set -l scratch $__opsmesh_inbox/.fish-$fish_pid
        set -l at 0
        if echo >$scratch
            set at (path mtime -- $scratch)000000
        end
        set -l line "{\"exit\":$exit,\"at\":$at,\"us\":$us,\"lost\":$__opsmesh_lost"
        set line "$line,\"command\":"(__opsmesh_json "$command")",\"cwd\":"(__opsmesh_json "$__opsmesh_cwd")
        set line "$line$__opsmesh_where"
        # Opened by its name each time, and begun with a new line: a line that was cut, by a full
        # disk or a kill, does not spoil the next.
        if printf '\n%s\n' "$line" >>$__opsmesh_inbox/$__opsmesh_name.$__opsmesh_file.jsonl
            set __opsmesh_size (math $__opsmesh_size + (string length -- "$line") + 2)
            test $__opsmesh_lost -eq 0
            or set __opsmesh_lost 0
        else
            set __opsmesh_lost (math $__opsmesh_lost + 1)
        end
    end

    function __opsmesh_preexec --on-event fish_preexec
        set -g __opsmesh_cwd $PWD
    end

    function __opsmesh_postexec --on-event fish_postexec
        set -l exit $status
        set -l duration $CMD_DURATION
        set -l before $__opsmesh_status
        set -g __opsmesh_status $exit
        test $exit -eq 0
        and return 0
        set -l command "$argv[1]"
        # These leave the status as the command before them has set it.
        test $exit -eq $before
        and string match -qr '^\s*(exit|set)\b|&\s*$' -- $command
        and return 0
        # typed with a space before it: private
        string match -q ' *' -- $command
        and set command ''
        __opsmesh_failed $exit (math "$duration * 1000") "$command" 2>/dev/null
        return 0
    end
end
