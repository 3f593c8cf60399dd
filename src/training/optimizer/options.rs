//! Options of the optimizer.

/// Update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptimizerKind {
    /// Kingma and Ba, 2015, arXiv:1412.6980, algorithm 1, with the L2 penalty of
    /// `torch.optim.Adam`.
    Adam,
    /// Loshchilov and Hutter, 2019, arXiv:1711.05101, algorithm 2, as `torch.optim.AdamW`.
    AdamW,
    /// `torch.optim.SGD` without dampening.
    Sgd,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OptimizerOptions {
    pub(crate) kind: OptimizerKind,
    /// Learning rate before the schedule.
    pub(crate) learning_rate: f64,
    /// Decay of the first moment (Adam).
    pub(crate) beta1: f64,
    /// Decay of the second moment (Adam).
    pub(crate) beta2: f64,
    /// Term of the denominator (Adam).
    pub(crate) epsilon: f64,
    /// Factor of the L2 penalty; with AdamW of the decoupled decay.
    pub(crate) weight_decay: f64,
    /// Momentum (SGD).
    pub(crate) momentum: f64,
    /// Gradient clipping by norm; `None` to disable it.
    pub(crate) max_gradient_norm: Option<f64>,
    /// Name prefixes with factors on the learning rate; the longest matching prefix applies.
    pub(crate) groups: Vec<(String, f64)>,
}

impl OptimizerOptions {
    /// Returns the factor on the learning rate of a parameter.
    pub(super) fn factor(&self, name: &str) -> f64 {
        let matching = self
            .groups
            .iter()
            .filter(|(prefix, _)| name.starts_with(prefix.as_str()));
        let longest = matching.max_by_key(|(prefix, _)| prefix.len());
        longest.map_or(1.0, |(_, factor)| *factor)
    }
}
