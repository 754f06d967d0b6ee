//! Deployments, edits and restarts: nothing alive leaves.
