//! Rotary position embedding: the tables and their application.
//!
//! Legend: n tokens, h heads, e = head_dim.

use burn::tensor::Tensor;
use burn::tensor::TensorData;

use crate::config::bad;
use crate::device::Device;
use crate::error::LoadError;

/// How fast each pair of a head's columns turns with the position.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How positions beyond the trained length are brought within reach.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    /// All frequencies divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, a ramp in between.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: f64,
    },
}

impl RopeConfig {
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let positive = |key, value: f64| {
            let fits = value.is_finite() && value > 0.0;
            if fits {
                Ok(())
            } else {
                Err(bad(key, format!("is {value}")))
            }
        };
        positive("rope_theta", self.theta)?;
        match self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("factor", factor),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings,
            } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low)?;
                positive(
                    "original_max_position_embeddings",
                    original_max_position_embeddings,
                )?;
                let ordered = high.is_finite() && high > low;
                let what = format!("is {high}, not above low_freq_factor {low}");
                if ordered {
                    Ok(())
                } else {
                    Err(bad("high_freq_factor", what))
                }
            }
        }
    }

    /// The turn per position of each column pair, in f32 throughout as the reference computes it:
    /// at position 8000 the last bit of a frequency is visible in the logits.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the reference computes in f32"
    )]
    #[expect(clippy::cast_precision_loss, reason = "column numbers are small")]
    pub(crate) fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let theta = self.theta as f32;
        (0..head_dim / 2)
            .map(|pair| 1.0 / theta.powf((2 * pair) as f32 / head_dim as f32))
            .map(|frequency| self.scaling.apply(frequency))
            .collect()
    }
}

impl RopeScaling {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the reference computes in f32"
    )]
    fn apply(&self, frequency: f32) -> f32 {
        match *self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor as f32,
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: trained_length,
            } => {
                let (factor, low, high) = (factor as f32, low as f32, high as f32);
                let trained_length = trained_length as f32;
                let wavelength = 2.0 * std::f32::consts::PI / frequency;
                if wavelength > trained_length / low {
                    frequency / factor
                } else if wavelength < trained_length / high {
                    frequency
                } else {
                    let smooth = (trained_length / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

/// Cosines and sines of the angles at some positions.
///
/// # Shapes
/// Both `[positions, head_dim / 2]`.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    half: usize,
}

impl Rotation {
    #[expect(clippy::cast_precision_loss, reason = "the reference computes in f32")]
    pub(crate) fn new(
        inverse_frequencies: &[f32],
        positions: impl IntoIterator<Item = usize>,
    ) -> Self {
        let angles = positions.into_iter().flat_map(|position| {
            let angle = move |frequency| position as f32 * frequency;
            inverse_frequencies.iter().map(angle)
        });
        let (cos, sin) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        Self {
            cos,
            sin,
            half: inverse_frequencies.len(),
        }
    }
}

/// A rotation as tensors, for the tokens of one forward pass.
#[derive(Debug, Clone)]
pub(crate) struct RopeTables {
    cos_n1e: Tensor<3>,
    /// With the first half negated, so that turning needs no negation of its own.
    sin_n1e: Tensor<3>,
}

impl RopeTables {
    pub(crate) fn new(rotation: &Rotation, device: &Device) -> Self {
        let Rotation { cos, sin, half } = rotation;
        let n_tokens = cos.len() / half;
        let table = |values: &[f32], first_sign: f32| {
            let rows = values.chunks_exact(*half);
            let both = rows.flat_map(|row| {
                let first = row.iter().map(move |value| first_sign * value);
                first.chain(row.iter().copied())
            });
            let data = TensorData::new(both.collect::<Vec<_>>(), [n_tokens, 1, 2 * half]);
            Tensor::from_data(data, device.as_burn())
        };
        Self {
            cos_n1e: table(cos, 1.0),
            sin_n1e: table(sin, -1.0),
        }
    }

    /// Turns each head by its token's position.
    ///
    /// # Shapes
    /// `x_nhe`: `[n_tokens, heads, head_dim]`, and the same out.
    pub(crate) fn apply(&self, x_nhe: Tensor<3>) -> Tensor<3> {
        let [_, _, head_dim] = x_nhe.dims();
        let half = head_dim / 2;
        let first = x_nhe.clone().narrow(2, 0, half);
        let second = x_nhe.clone().narrow(2, half, half);
        let swapped = Tensor::cat(vec![second, first], 2);
        x_nhe * self.cos_n1e.clone() + swapped * self.sin_n1e.clone()
    }
}
