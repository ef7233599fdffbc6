"""The orders of work that go on side by side; what a pass is bound by is the busiest of them.

disk      reads in flight, one or many
upload    copies to the device
compute   work of the model where it computes
download  copies to the host
host      keys and values stored in host memory beside a device, and attention to them
"""

LANES = ("disk", "upload", "compute", "download", "host")

# The same for people, on a timeline.
LANE_NAMES = {
    "disk": "disk",
    "upload": "host-to-device",
    "compute": "compute",
    "download": "device-to-host",
    "host": "CPU attention",
}
