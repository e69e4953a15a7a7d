//! `AdamW` (Loshchilov & Hutter 2019) over the named tensors of what learns, in the order of operations of `PyTorch`'s.

use burn::tensor::Tensor;
use domain::TrainingConfig;
use lm::Learned;

/// The optimizer's memory: for every tensor that learns a running mean of its gradient and of its square.
///
/// Nothing else carries over from step to step, so saving these and the step number is saving the optimizer.
#[derive(Debug, Clone)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    /// Updates made so far.
    pub step: u64,
    /// In the order of [`Learned::named_tensors`].
    pub moments: Vec<Moments>,
}

/// What is remembered of one tensor's gradients. Both have the tensor's own shape.
#[derive(Debug, Clone)]
pub struct Moments {
    /// The running mean, `exp_avg` in `PyTorch`.
    pub mean: Tensor<2>,
    /// The running mean of the square, `exp_avg_sq` in `PyTorch`.
    pub square: Tensor<2>,
}

impl AdamW {
    /// An optimizer that has seen nothing.
    pub fn new(config: &TrainingConfig, learned: &Learned) -> Self {
        let moments = learned
            .named_tensors()
            .map(|(_, tensor)| Moments {
                mean: tensor.zeros_like(),
                square: tensor.zeros_like(),
            })
            .collect();
        Self::resume(config, 0, moments)
    }

    /// An optimizer as a checkpoint kept it.
    pub fn resume(config: &TrainingConfig, step: u64, moments: Vec<Moments>) -> Self {
        Self {
            beta1: config.adam_beta1,
            beta2: config.adam_beta2,
            eps: config.adam_eps,
            weight_decay: config.weight_decay,
            step,
            moments,
        }
    }

    /// One update. `gradients` come in the order of [`Learned::named_tensors`].
    pub fn update(
        &mut self,
        learned: Learned,
        gradients: Vec<Tensor<2>>,
        learning_rate: f64,
    ) -> Learned {
        self.step += 1;
        let updates = i32::try_from(self.step).unwrap_or(i32::MAX);
        let correction1 = 1.0 - self.beta1.powi(updates);
        let correction2 = 1.0 - self.beta2.powi(updates);
        let (beta1, beta2, eps) = (self.beta1, self.beta2, self.eps);
        let decay = 1.0 - learning_rate * self.weight_decay;
        let step_size = learning_rate / correction1;

        let mut pairs = self.moments.iter_mut().zip(gradients);
        learned.map(|_, tensor| {
            let (moments, gradient) = pairs.next().expect("one gradient for each tensor");
            let mean = moments.mean.clone() * beta1 + gradient.clone() * (1.0 - beta1);
            let square = moments.square.clone() * beta2 + gradient.square() * (1.0 - beta2);
            let denominator = square.clone().sqrt() / correction2.sqrt() + eps;
            let next = tensor * decay - mean.clone() / denominator * step_size;
            *moments = Moments { mean, square };
            next
        })
    }
}

/// The L2 norm over all gradients together.
pub fn global_norm(gradients: &[Tensor<2>]) -> f64 {
    gradients
        .iter()
        .map(|gradient| f64::from(gradient.clone().square().sum().into_scalar::<f32>()))
        .sum::<f64>()
        .sqrt()
}

/// Scales all gradients so that their global norm is at most `max_norm`, as `clip_grad_norm_` does.
pub fn clip(gradients: Vec<Tensor<2>>, norm: f64, max_norm: f64) -> Vec<Tensor<2>> {
    let scale = max_norm / (norm + 1e-6);
    if max_norm == 0.0 || scale >= 1.0 {
        return gradients;
    }
    gradients
        .into_iter()
        .map(|gradient| gradient * scale)
        .collect()
}
