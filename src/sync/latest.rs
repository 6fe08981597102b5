//! The newest value of something that is seldom written and seldom read: whoever reads gets it whole.

use std::sync::Arc;

use parking_lot::Mutex;

/// One value, replaced whole. The lock is held for as long as a pointer is copied.
#[derive(Debug, Default)]
pub struct Latest<T>(Mutex<Arc<T>>);

impl<T> Latest<T> {
    /// Puts another in its place.
    pub fn set(&self, value: T) {
        *self.0.lock() = Arc::new(value);
    }

    /// The newest.
    pub fn read(&self) -> Arc<T> {
        Arc::clone(&self.0.lock())
    }
}
