"""How fast and how small hpchub is, against what people use today. Not part of the wheel."""
