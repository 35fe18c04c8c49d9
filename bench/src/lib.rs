//! Micro-benches: what parts of the broker cost by themselves.
//!
//! Their work is `antiphon-bench-cases`, which also counts its instructions. The loads on a whole broker, and the controls
//! beside them, are `antiphon-loadgen`'s.
