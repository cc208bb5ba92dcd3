//! Random schedules of events against a model.
