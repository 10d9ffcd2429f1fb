"""Further sources of screens: the mirror (``mirrored``), the doctor (``checkups``) and active jobs."""
