"""KuaiRand: videos shown by Kuaishou's own policy (the randomly inserted ones are left out).

Original files (`log_standard_*.csv`) are wanted-if-clicked.  The processed form in which each row has
a `label` (1 liked, 0 disliked) is read by that label.
"""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.fetch import Address
from nextsession.data.format import Columns, Labels, LogFormat

SET = DataSet(
    name="kuairand",
    title="KuaiRand (Kuaishou)",
    about=(
        "Videos shown to people of Kuaishou in April and May 2022, sizes Pure, 1K and 27K. Sessions are cut at "
        "silences of 30 minutes; wanted if clicked (or by the column `label` of the processed form)."
    ),
    homepage="https://kuairand.com/",
    licence="CC BY-SA 4.0: attribution, share alike",
    citation=(
        "Chongming Gao, Shijun Li, Yuan Zhang et al. KuaiRand: An Unbiased Sequential Recommendation Dataset with "
        "Randomly Exposed Videos. CIKM 2022. https://doi.org/10.1145/3511808.3557624"
    ),
    layouts=(
        *(
            Layout(
                files=(f"{folder}log_standard_*.csv",),
                form=LogFormat(
                    columns=Columns(item="video_id", time="time_ms", label="is_click"),
                    time_unit="ms",
                    labels=Labels(at_least=1),
                ),
            )
            for folder in ("data/", "")
        ),
        Layout(
            files=("processed_standard_*.tsv*",),
            form=LogFormat(
                columns=Columns(item="video_id", time="time_ms", label="label"),
                time_unit="ms",
                labels=Labels(at_least=1),
            ),
        ),
    ),
    folders=("KuaiRand-27K", "KuaiRand-1K", "KuaiRand-Pure", "kuairand_sample"),
    addresses=(Address("https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz"),),
    by_hand="follow the links at https://kuairand.com/ (Pure, 1K or 27K) and unpack.",
)
