//! Tests of the links over both wires.
