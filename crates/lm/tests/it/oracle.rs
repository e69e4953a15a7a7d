//! The decoder written a second time, one number after the other: slow and plain.

use lm::rope::RopeScaling;
use lm::{ModelConfig, WeightSource};

use crate::tiny::RandomWeights;

type Rows = Vec<Vec<f64>>;

/// Logits of every position of one sequence.
pub(crate) fn logits(config: &ModelConfig, ids: &[u32]) -> Rows {
    let oracle = Oracle { config };
    let embedding = matrix("model.embed_tokens", config.vocab_size, config.hidden_size);
    let mut x: Rows = ids
        .iter()
        .map(|id| embedding[*id as usize].clone())
        .collect();
    for layer in 0..config.n_layers {
        x = oracle.layer(layer, x);
    }
    let x = oracle.norm("model.norm", config.hidden_size, &x);
    let head = if config.tie_word_embeddings {
        embedding
    } else {
        matrix("lm_head", config.vocab_size, config.hidden_size)
    };
    x.iter()
        .map(|row| head.iter().map(|weights| dot(weights, row)).collect())
        .collect()
}

struct Oracle<'a> {
    config: &'a ModelConfig,
}

impl Oracle<'_> {
    fn layer(&self, layer: usize, x: Rows) -> Rows {
        let config = self.config;
        let (d, ffn) = (config.hidden_size, config.intermediate_size);
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let h = self.norm(&name("input_layernorm"), d, &x);
        let attended = self.attention(layer, &h);
        let o = linear(&name("self_attn.o_proj"), d, config.output_bias, &attended);
        let x = add(x, &o);
        let h = self.norm(&name("post_attention_layernorm"), d, &x);
        let gate = linear(&name("mlp.gate_proj"), ffn, config.mlp_bias, &h);
        let up = linear(&name("mlp.up_proj"), ffn, config.mlp_bias, &h);
        let activated: Rows = gate
            .iter()
            .zip(&up)
            .map(|(g, u)| {
                g.iter()
                    .zip(u)
                    .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                    .collect()
            })
            .collect();
        let down = linear(&name("mlp.down_proj"), d, config.mlp_bias, &activated);
        add(x, &down)
    }

    fn attention(&self, layer: usize, h: &Rows) -> Rows {
        let config = self.config;
        let name = |rest: &str| format!("model.layers.{layer}.self_attn.{rest}");
        let bias = config.qkv_bias;
        let q = linear(&name("q_proj"), config.q_width(), bias, h);
        let k = linear(&name("k_proj"), config.kv_width(), bias, h);
        let v = linear(&name("v_proj"), config.kv_width(), bias, h);
        let heads = |rows: &Rows, norm: &str| -> Vec<Rows> {
            let heads = rows[0].len() / config.head_dim;
            (0..heads)
                .map(|head| self.head(rows, head, &name(norm)))
                .collect()
        };
        let (q, k) = (heads(&q, "q_norm"), heads(&k, "k_norm"));
        let window = config.sliding_windows[layer].unwrap_or(usize::MAX);
        let group = config.n_heads / config.n_kv_heads;
        let mut out = vec![Vec::new(); h.len()];
        for (head, queries) in q.iter().enumerate() {
            let first = head / group * config.head_dim;
            let values: Rows = v
                .iter()
                .map(|row| row[first..first + config.head_dim].to_vec())
                .collect();
            for (position, query) in queries.iter().enumerate() {
                let seen = (position + 1).saturating_sub(window)..position + 1;
                let keys = &k[head / group][seen.clone()];
                out[position].extend(weigh(query, keys, &values[seen]));
            }
        }
        out
    }

    /// One head's columns, normed where the family does, turned by position.
    fn head(&self, rows: &Rows, head: usize, norm: &str) -> Rows {
        let e = self.config.head_dim;
        let rows: Rows = rows
            .iter()
            .map(|row| row[head * e..(head + 1) * e].to_vec())
            .collect();
        let rows = if self.config.qk_norm {
            self.norm(norm, e, &rows)
        } else {
            rows
        };
        rows.iter()
            .enumerate()
            .map(|(position, row)| self.turn(row, position))
            .collect()
    }

    fn turn(&self, row: &[f64], position: usize) -> Vec<f64> {
        let half = row.len() / 2;
        let mut turned = row.to_vec();
        for pair in 0..half {
            let angle = number(position) * self.frequency(pair);
            let (x, y) = (row[pair], row[pair + half]);
            turned[pair] = x * angle.cos() - y * angle.sin();
            turned[pair + half] = y * angle.cos() + x * angle.sin();
        }
        turned
    }

    fn frequency(&self, pair: usize) -> f64 {
        let rope = &self.config.rope;
        let plain = rope
            .theta
            .powf(-2.0 * number(pair) / number(self.config.head_dim));
        match rope.scaling {
            RopeScaling::None => plain,
            RopeScaling::Linear { factor } => plain / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: length,
            } => {
                let turns = length * plain / (2.0 * std::f64::consts::PI);
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                kept * plain + (1.0 - kept) * plain / factor
            }
        }
    }

    fn norm(&self, name: &str, width: usize, x: &Rows) -> Rows {
        let weight = values(&format!("{name}.weight"), &[width]);
        x.iter()
            .map(|row| {
                let mean_square = dot(row, row) / number(width);
                let rms = (mean_square + self.config.rms_norm_eps).sqrt();
                row.iter()
                    .zip(&weight)
                    .map(|(value, weight)| value / rms * weight)
                    .collect()
            })
            .collect()
    }
}

fn linear(name: &str, n_out: usize, bias: bool, x: &Rows) -> Rows {
    let weight = matrix(name, n_out, x[0].len());
    let bias = if bias {
        values(&format!("{name}.bias"), &[n_out])
    } else {
        vec![0.0; n_out]
    };
    x.iter()
        .map(|row| {
            weight
                .iter()
                .zip(&bias)
                .map(|(w, b)| dot(w, row) + b)
                .collect()
        })
        .collect()
}

fn matrix(name: &str, rows: usize, columns: usize) -> Rows {
    let values = values(&format!("{name}.weight"), &[rows, columns]);
    values.chunks(columns).map(<[f64]>::to_vec).collect()
}

fn values(name: &str, shape: &[usize]) -> Vec<f64> {
    let values = RandomWeights::default().tensor(name, shape).unwrap();
    values.into_iter().map(f64::from).collect()
}

/// The softmax-weighted mean of `values`.
fn weigh(query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>]) -> Vec<f64> {
    let root = number(query.len()).sqrt();
    let weights: Vec<f64> = keys
        .iter()
        .map(|key| (dot(query, key) / root).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    (0..query.len())
        .map(|e| {
            weights
                .iter()
                .zip(values)
                .map(|(w, value)| w / total * value[e])
                .sum()
        })
        .collect()
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(l, r)| l * r).sum()
}

fn add(mut left: Rows, right: &Rows) -> Rows {
    for (left, right) in left.iter_mut().zip(right) {
        left.iter_mut().zip(right).for_each(|(l, r)| *l += r);
    }
    left
}

fn number(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap())
}
