"""Run by test_compress.py in a process of its own, which it kills between two steps."""

import os
import signal
import sys

from tests.compression.task import data, trained

import secateur as sc

folder, resume, die_after = sys.argv[1], sys.argv[2] == "resume", int(sys.argv[3])
train, validation = data()
calls = 0


def progress(what, fraction):
    global calls
    calls += 1
    if calls > die_after:
        os.kill(os.getpid(), signal.SIGKILL)


result = sc.compress(
    trained(), train, validation, target=sc.Parameters(ratio=4), max_drop=0.05,
    tuning=sc.FineTuning(epochs=3), checkpoint=folder, resume=resume, progress=progress,
)  # fmt: skip
digest = hash(tuple(w.tobytes() for w in result.model.get_weights()))
print("RESULT", [(s.amount, s.quality, s.figure, s.accepted) for s in result.history], digest)
