"""What the names of published videos say of their labels."""

import re

from avad_hf.corpora.shanghaitech import ID, label_of

# Codes after "_label_" in XD-Violence's file names.
XD_CLASSES = {
    "A": "normal",
    "B1": "fighting",
    "B2": "shooting",
    "B4": "riot",
    "B5": "abuse",
    "B6": "car_accident",
    "G": "explosion",
}
UCF_CRIME_CLASSES = {
    "Normal_Videos": "normal",
    "Abuse": "abuse",
    "Arrest": "arrest",
    "Arson": "arson",
    "Assault": "assault",
    "Burglary": "burglary",
    "Explosion": "explosion",
    "Fighting": "fighting",
    "RoadAccidents": "road_accidents",
    "Robbery": "robbery",
    "Shooting": "shooting",
    "Shoplifting": "shoplifting",
    "Stealing": "stealing",
    "Vandalism": "vandalism",
}


def xd_violence_classes(name: str) -> list[str]:
    """Classes of a video of XD-Violence, the most important first.

    Raises:
        ValueError: If the name tells none.
    """
    codes = [code for code in name.rpartition("_label_")[2].split("-") if code != "0"]
    classes = [XD_CLASSES[code] for code in codes if code in XD_CLASSES]
    if "_label_" not in name or len(classes) < len(codes) or not classes or ("normal" in classes and classes[1:]):
        raise ValueError(
            f"The name {name} tells no label: it must end with '_label_A' (normal) or '_label_' and codes of "
            f"{', '.join(code for code in XD_CLASSES if code != 'A')}, like B2-0-0. Restore the published name."
        )
    return classes


def surveillance_label(name: str) -> tuple[str, str | None]:
    """Label and scene of a video of ShanghaiTech, or of UCF-Crime, which has no scenes.

    Raises:
        ValueError: If the name tells no label.
    """
    if match := ID.fullmatch(name):
        return label_of(name), match[1]
    prefix = re.match(r"Normal_Videos|[A-Za-z]*", name)[0]
    if prefix not in UCF_CRIME_CLASSES:
        raise ValueError(
            f"The name {name} tells no label: it is neither ShanghaiTech's (01_001, 01_0014) nor does it begin with a "
            f"class of UCF-Crime ({', '.join(UCF_CRIME_CLASSES)}). Restore the published name."
        )
    return UCF_CRIME_CLASSES[prefix], None
