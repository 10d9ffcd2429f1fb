"""Histories of queues as charts and text: SVG without script or style.

``drawing`` and ``panels`` are pure; ``histories`` reads, and keeps the histories of all queues going.
"""
