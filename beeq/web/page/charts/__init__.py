"""What was, as pictures and in words: histories of queues, and SVG without script or style.

``drawing`` and ``panels`` are pure; ``histories`` reads, and keeps the histories of all queues going.
"""
