"""A real Kubernetes on one Linux machine, without Docker: for this project's tests and for trying it out.

Start with `python -m cluster --help`, or in a test with `cluster.control_plane.ControlPlane`. README.md says why it
exists and which traps it knows.
"""
