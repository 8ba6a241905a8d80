"""`gatort` and `python -m gatort`: the command line, which a signal ends quietly at any time."""

import sys


def main() -> int:
    """Run one command and return its exit status."""
    try:
        from gatort.runtime.interruption import end_at_once, finish
        from gatort.runtime.process_name import name_process

        end_at_once()
        name_process(*sys.argv[1:2])
    except KeyboardInterrupt:  # In the first milliseconds, before the handlers stand.
        return 130
    # The command line takes 0.2 s to import, and packages turn a KeyboardInterrupt into other
    # errors.
    from gatort.launch import cli

    status = cli.main()
    finish()
    return status


if __name__ == "__main__":
    sys.exit(main())
