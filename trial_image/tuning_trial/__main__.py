"""`python -m tuning_trial`: run trials of one study until none waits, and leave with an exit code that says why.

With arguments it is a tool for a person or for `tuningstudy`: see `--help`.
"""

import os
import signal
import sys
from collections.abc import Mapping

if __name__ == "__main__":
    # NB: the first process of a container ignores every signal that it has no handler for, and the imports below take
    # seconds: a pod that is deleted meanwhile would go on for its whole grace period. 75 is ExitCode.INTERRUPTED.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))

from tuning_api.contract import ExitCode
from tuning_trial import code_path, command_line, leaving, log, settings, worker
from tuning_trial.database import PATIENCE_SECONDS
from tuning_trial.errors import DatabaseAwayError, MisconfiguredError
from tuning_trial.interrupts import Interrupts
from tuning_trial.supervision import GRACE_SECONDS


def main(
    environment: Mapping[str, str] = os.environ, *, patience: float = PATIENCE_SECONDS, grace: float = GRACE_SECONDS
) -> int:
    """Run a worker; the exit codes are those of :class:`tuning_api.contract.ExitCode`, and 1 for a mistake of ours."""
    log.configure()
    with Interrupts() as signals:
        try:
            return worker.work(settings.read(environment), signals=signals, patience=patience, grace=grace)
        except MisconfiguredError as error:
            log.logger.error("%s", error)
            return ExitCode.MISCONFIGURED
        except DatabaseAwayError as error:
            log.logger.error("%s", error)
            return ExitCode.INTERRUPTED
        except Exception:  # noqa: BLE001 - said, and counted by Kubernetes
            log.logger.exception("the worker stopped for a reason that it does not know")
            return 1


if __name__ == "__main__":
    code_path.add_to_this_process()
    if sys.argv[1:]:
        sys.exit(command_line.run(sys.argv[1:]))
    code = main()
    leaving.leave("the worker", code=code)
    leaving.end(code)
