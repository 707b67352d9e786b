"""The table of Hounsfield units: every tissue, five phases, and where each number comes from.

Comes in: nothing. Goes out: ``PLAIN`` (mean and spread between patients without contrast medium, source) and
``ENHANCED`` (HU added by phase). ``SOURCES`` names the publications. It draws nothing.

Values are for 120 kVp. A row whose source is "judgement" is a value usual in reading rooms that no publication named
here gives; where a source gives a range or another protocol, the row is a rounded choice within it.

Phases: none; arterial (corticomedullary, about 30 s); nephrographic (portal venous, 70 to 100 s); delayed (equilibrium,
about 3 min); excretory (5 to 10 min, contrast medium in the urine).
"""

from __future__ import annotations

PHASES = ("none", "arterial", "nephrographic", "delayed", "excretory")

SOURCES: dict[str, str] = {
    "judgement": "usual values in diagnostic abdominal CT; no single publication",
    "goshima2007": "Goshima et al., Eur J Radiol 2007;63:420-426: enhancement of the renal cortex 195 to 217 HU in the "
    "corticomedullary phase, of the medulla 145 HU in the nephrographic phase; cortex above medulla by 110 to 140 HU, "
    "below 30 HU from the nephrographic phase on; renal artery 240 to 288 HU. 4 mL/s, so that the table takes a tenth "
    "to a third less for usual rates",
    "jang2019": "Jang et al., Radiology 2019;291:360-367: trabecular attenuation of L1 in 20 374 adults at 120 kV: "
    "226 (44) HU below 30 years, 89 (38) HU from 90 years on, 2.5 HU less a year; hardly changed by contrast medium",
    "piekarski1980": "Piekarski et al., Radiology 1980;137:727-729: liver above spleen by 3.8 (2.1) EMI units, that is "
    "about 8 HU, in 100 normal adults",
    "israel2005": "Israel and Bosniak, Radiology 2005;236:441-450: simple cysts -10 to 20 HU; enhancement above 20 HU "
    "is solid tissue",
    "silverman2019": "Silverman et al., Radiology 2019;292:475-488: Bosniak classification, version 2019",
    "uj5000256": "Urologia Journal, doi 10.5301/uj.5000256: hypervascular renal cell carcinoma 34 (7) HU without "
    "contrast medium, 173 (45) corticomedullary, 149 (34) nephrographic, 98 (36) excretory",
    "kim2002": "Kim et al., AJR 2002;178:1499-1506: clear cell carcinoma enhances more than papillary and chromophobe "
    "in the corticomedullary and excretory phase",
    "heiken1995": "Heiken et al., Radiology 1995;195:353-357: about 50 HU of enhancement in the portal venous phase",
    "bae2010": "Bae, Radiology 2010;256:32-61: time courses of aortic and hepatic enhancement",
    "yoshizumi1999": "Yoshizumi et al., Radiology 1999;211:283-286: fat lies at -190 to -30 HU, mean near -100",
    "aubrey2014": "Aubrey et al., Acta Physiol 2014;210:489-497: muscle -29 to 150 HU, 30 and more where little fatty",
}

# HU without contrast medium: mean, spread between patients, source
PLAIN: dict[str, tuple[float, float, str]] = {
    "skin": (35, 8, "judgement"), "fat": (-104, 5, "yoshizumi1999"), "visceral_fat": (-99, 5, "yoshizumi1999"),
    "muscle": (52, 5, "aubrey2014"), "cartilage": (95, 12, "judgement"), "cortical": (820, 120, "judgement"),
    "marrow": (150, 38, "jang2019"), "disc": (80, 8, "judgement"), "cord": (30, 4, "judgement"),
    "lung": (-840, 30, "judgement"), "liver": (57, 6, "piekarski1980"), "bile": (8, 4, "judgement"),
    "spleen": (49, 4, "piekarski1980"), "pancreas": (40, 6, "judgement"), "gut_wall": (42, 5, "judgement"),
    "fluid": (15, 6, "judgement"), "aorta": (41, 4, "judgement"), "cava": (39, 4, "judgement"),
    "portal": (40, 4, "judgement"), "hepatic_vein": (40, 4, "judgement"), "cortex": (34, 4, "judgement"),
    "medulla": (32, 4, "judgement"), "urine": (5, 5, "judgement"), "sinus_fat": (-86, 10, "judgement"),
    "heart": (42, 4, "judgement"), "adrenal": (22, 7, "judgement"), "cyst": (7, 5, "israel2005"),
    "clear_cell": (35, 6, "uj5000256"), "papillary": (36, 6, "kim2002"), "chromophobe": (37, 6, "kim2002"),
    "fat_rich": (25, 10, "judgement"), "necrosis": (20, 5, "judgement"), "metastasis": (40, 7, "judgement"),
    "hcc": (46, 7, "judgement"), "haemangioma": (38, 6, "judgement"), "haemangioma_rim": (40, 5, "judgement"),
}  # fmt: skip

# HU added, by phase: arterial, nephrographic, delayed, excretory
_ADDED: dict[str, tuple[float, float, float, float]] = {
    "skin": (5, 10, 10, 8), "muscle": (4, 9, 12, 10), "marrow": (3, 5, 5, 4), "liver": (14, 52, 34, 24),
    "spleen": (70, 72, 48, 34), "pancreas": (62, 48, 32, 22), "gut_wall": (42, 48, 38, 30), "aorta": (250, 112, 78, 52),
    "cava": (60, 98, 78, 52), "portal": (85, 122, 80, 54), "hepatic_vein": (12, 112, 78, 52),
    "cortex": (158, 146, 112, 88), "medulla": (48, 134, 116, 96), "urine": (0, 0, 25, 620), "heart": (150, 100, 76, 50),
    "adrenal": (50, 46, 26, 18), "clear_cell": (112, 84, 58, 42), "papillary": (18, 34, 32, 28),
    "chromophobe": (42, 52, 44, 34), "fat_rich": (48, 40, 28, 20), "necrosis": (1, 4, 4, 4),
    "metastasis": (10, 30, 26, 22), "hcc": (62, 42, 20, 12), "haemangioma": (8, 22, 52, 44),
    "haemangioma_rim": (130, 108, 74, 50),
}  # fmt: skip
ENHANCED: dict[str, dict[str, float]] = {
    phase: {} if i == 0 else {name: added[i - 1] for name, added in _ADDED.items()} for i, phase in enumerate(PHASES)
}
# sources of the enhancement, where a publication gives one
ENHANCED_BY: dict[str, str] = {
    "cortex": "goshima2007", "medulla": "goshima2007", "aorta": "bae2010", "liver": "heiken1995",
    "marrow": "jang2019", "clear_cell": "uj5000256", "papillary": "kim2002", "chromophobe": "kim2002",
}  # fmt: skip
STRENGTH_SPREAD = 0.10  # between patients (weight, dose, timing): scales all enhancement at once


def expected(tissue: str, phase: str) -> tuple[float, float]:
    """Mean HU and spread between patients of a tissue in a phase."""
    mean, spread, _ = PLAIN[tissue]
    added = ENHANCED[phase].get(tissue, 0.0)
    return mean + added, float((spread**2 + (added * (STRENGTH_SPREAD + 0.04)) ** 2) ** 0.5)
