"""TID2013: 25 references x 24 distortion types x 5 levels, 3000 images with mean opinion scores.

Source: N. Ponomarenko, L. Jin, O. Ieremeiev, V. Lukin, K. Egiazarian, J. Astola, B. Vozel, K. Chehdi,
M. Carli, F. Battisti, C.-C. Jay Kuo, "Image database TID2013: Peculiarities, results and perspectives",
Signal Processing: Image Communication 30 (2015).
"""

from __future__ import annotations

from fmiqa.datasets.published import Whole
from fmiqa.datasets.tid import TID, tid_layout

__all__ = ["TID2013"]


class TID2013(TID):
    """TID2013 as it is distributed; the scores are MOS, 0 to 9, higher = better.

    The folder holds `reference_images/I01.BMP` ..., `distorted_images/i01_01_1.bmp` ... (reference, type,
    level), `mos_with_names.txt` (a line an image: score, name) and, if you like, `mos_std.txt` (the scores'
    standard deviations in the same order). Letter case does not matter. A sample's name is the file's in
    lower case ("i01_08_5.bmp"), its reference id "I01", its distortion the published name of the type.

    Args:
        root: The folder that holds those entries.
        partial: Take a subset as it is: scores without an image are left out. Otherwise all 3000 images
            must be there.
        name: The name for reports; by default "TID2013" for the whole set, and "TID2013 (partial, n of 3000)"
            for a part of it.

    Raises:
        DatasetError: Entries, images or scores are missing, malformed or contradictory; all are named.

    Example:
        >>> data = TID2013("/data/tid2013")  # doctest: +SKIP
        >>> data  # doctest: +SKIP
        <TID2013: 3000 images, 25 references, 24 distortion types, scores 0.242424 to 7.21429>
        >>> part = TID2013("/data/tid2013_noise", partial=True, name="TID2013, noise types")  # doctest: +SKIP
    """

    levels = 5
    whole = Whole(
        key="tid2013",
        name="TID2013",
        images=3000,
        references=25,
        distortions=24,
        made_of="25 references x 24 types x 5 levels",
        scores="MOS 0.24 to 7.21, higher = better",
        scale=(0, 9),
        terms="free for research",
        available_from="Tampere Image Database 2013, page of N. Ponomarenko",
        citation=(
            "Ponomarenko et al., Image database TID2013: Peculiarities, results and perspectives, Signal "
            "Processing: Image Communication 30, 2015"
        ),
        layout=tid_layout(24, 5),
        optional=["mos_std.txt"],
    )
