"""Why a job is where it is: what is read of Redis (``facts``), and what follows from it (``reasons``)."""
