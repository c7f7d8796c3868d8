package optim

import (
	"math"
	"math/big"
)

// Schedule gives the factor on the base learning rates for a step, counted from 0: what torch.optim's
// LambdaLR takes. Optimizer.ScaleLR applies it.
type Schedule func(step int) float64

// Constant is 1 at every step.
func Constant() Schedule { return func(int) float64 { return 1 } }

// LinearWarmup goes from start at step 0 to 1 at step steps, and then on with the schedule then, whose own
// steps count from there: LinearLR and then another one in SequentialLR.
func LinearWarmup(steps int, start float64, then Schedule) Schedule {
	return func(step int) float64 {
		if step < steps {
			return start + (1-start)*float64(step)/float64(steps)
		}
		return then(step - steps)
	}
}

// Cosine falls from 1 to floor in half a wave of total steps, and stays there: CosineAnnealingLR with
// eta_min of floor times the base rate (Loshchilov and Hutter, 2017).
func Cosine(total int, floor float64) Schedule {
	return func(step int) float64 {
		return floor + (1-floor)*(1+math.Cos(math.Pi*progress(step, total)))/2
	}
}

// Polynomial falls from 1 to 0 in total steps, as (1 - step/total)^power: PolynomialLR.
func Polynomial(total int, power float64) Schedule {
	return func(step int) float64 { return math.Pow(1-progress(step, total), power) }
}

// StepDecay multiplies by gamma after each every steps: StepLR. An every below 1 never comes.
func StepDecay(every int, gamma float64) Schedule {
	return func(step int) float64 {
		if every < 1 {
			return 1
		}
		return power(gamma, step/every)
	}
}

// progress is the part of total that is done, at most 1.
func progress(step, total int) float64 {
	if step >= total {
		return 1
	}
	return float64(step) / float64(total)
}

// power is base to the power of n, rounded once, as C's pow and so Python's ** give it; math.Pow rounds more
// often.
func power(base float64, n int) float64 {
	if math.IsNaN(base) || math.IsInf(base, 0) {
		return math.Pow(base, float64(n))
	}
	exact := func(v float64) *big.Float { return new(big.Float).SetPrec(1024).SetFloat64(v) }
	product, factor := exact(1), exact(base)
	for ; n > 0; n /= 2 {
		if n%2 == 1 {
			product.Mul(product, factor)
		}
		factor.Mul(factor, factor)
	}
	p, _ := product.Float64()
	return p
}
