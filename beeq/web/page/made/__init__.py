"""The pictures, sounds and films that jobs of the built-in queues made: which they are, and sent to browsers.

``kinds`` says by its content what a file is, and as which type a browser may have it; ``files`` finds those
that a job's result names, below the media root; ``serving`` sends one, or a part of it.
"""
