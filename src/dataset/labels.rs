//! Group labels of a sample, such as `gender` or `race`.

use std::{collections::BTreeSet, sync::Arc};

/// Named group labels of one sample, sorted by name.
///
/// The texts are shared between samples: a dataset has many samples and few distinct labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// Iterates over (name, value), sorted by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Creates [`Labels`] with shared texts.
#[derive(Debug, Default)]
pub(super) struct LabelPool(BTreeSet<Arc<str>>);

impl LabelPool {
    pub(super) fn labels<'a>(
        &mut self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Labels {
        let mut shared: Vec<_> = pairs
            .into_iter()
            .map(|(name, value)| (self.share(name), self.share(value)))
            .collect();
        shared.sort();
        Labels(shared.into_boxed_slice())
    }

    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        self.0.insert(Arc::clone(&new));
        new
    }
}
