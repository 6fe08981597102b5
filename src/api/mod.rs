//! HTTP routes and handlers on request values.
