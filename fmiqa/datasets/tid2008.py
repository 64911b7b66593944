"""TID2008: 25 references x 17 distortion types x 4 levels, 1700 images with mean opinion scores.

Source: N. Ponomarenko, V. Lukin, A. Zelensky, K. Egiazarian, M. Carli, F. Battisti, "TID2008 - A Database for
Evaluation of Full-Reference Visual Quality Assessment Metrics", Advances of Modern Radioelectronics 10 (2009).
"""

from __future__ import annotations

from fmiqa.datasets.published import Whole
from fmiqa.datasets.tid import TID, tid_layout

__all__ = ["TID2008"]


class TID2008(TID):
    """TID2008 as it is distributed; the scores are MOS, 0 to 9, higher = better.

    The folder is laid out as that of `TID2013`, with the first 17 of its types at four levels; so are names and
    ids of the samples. Scores of TID2013 are not those of TID2008, and are refused where their names show it.

    Args:
        root: The folder that holds `reference_images`, `distorted_images`, `mos_with_names.txt` and, if you like,
            `mos_std.txt`.
        partial: Take a part as it is: scores without an image are left out.
        name: The name for reports; by default "TID2008", and "TID2008 (partial, n of 1700)" for a part.

    Raises:
        DatasetError: Entries, images or scores are missing, malformed or contradictory; all are named.

    Example:
        >>> TID2008("/data/tid2008")  # doctest: +SKIP
        <TID2008: 1700 images, 25 references, 17 distortion types, scores 0 to 7.71429>
    """

    levels = 4
    whole = Whole(
        key="tid2008",
        name="TID2008",
        images=1700,
        references=25,
        distortions=17,
        made_of="25 references x 17 types x 4 levels",
        scores="MOS 0 to 7.71, higher = better",
        scale=(0, 9),
        terms="free for research",
        available_from="Tampere Image Database 2008, page of N. Ponomarenko",
        citation=(
            "Ponomarenko et al., TID2008 - A Database for Evaluation of Full-Reference Visual Quality "
            "Assessment Metrics, Advances of Modern Radioelectronics 10, 2009"
        ),
        layout=tid_layout(17, 4),
        optional=["mos_std.txt"],
    )
