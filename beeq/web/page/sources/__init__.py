"""What screens look at beside queues and jobs: the mirror (``mirrored``), and the doctor (``checkups``)."""
