//! Wires the parts together: start order, stop order, the library's front door.
