"""What `opsmesh agent-hook --help` says; loaded only when somebody asks."""

HELP = """\
Usage: opsmesh agent-hook [--agent NAME] [EVENT] [options]     (JSON on standard input)

What a coding agent's hook calls: the agent's session, commands, turns, errors
and requests for permission become events agent.*. Metadata only: prompts,
answers, file contents and output are left out. Always ends with 0, within a
second, and writes nothing; works without an agent of the mesh and without a
broker. `opsmesh install codex` (claude, gemini) writes the hooks.

  opsmesh agent-hook --agent claude
  opsmesh agent-hook --agent codex --decide=5m
  opsmesh agent-hook --agent mine --topic agent.command.executed \\
      --field session=/run/id --field argv=/tool/argv --field exit_code=/status

  --agent NAME        whose hook it is; claude, codex and gemini have a form each,
                      every other name is read as claude's, which many have copied
  EVENT               the hook's name, where the input has no hook_event_name
  --commands POLICY   of commands tell argv (default), program, or none
  --decide[=LIMIT]    codex, claude: wait for a person's answer to the question that
                      a profile asks about the request (default 5m, at most 60m);
                      without one in time the agent asks by itself, as ever

Any other form of JSON, for one topic:

  --topic TOPIC       the event's topic
  --field NAME=/PTR   a field of the payload, by its JSON pointer in the input
  --set NAME=TEXT     a field of the payload, as it stands here
  --severity S        info, warn, error or critical (default: the topic's own)

What could not be told is counted: opsmesh doctor.
"""
