/* What is added to products, by channel, and the neurons behind the sum, where there are thresholds.
 * Rows of thresholds are `row` apart: 0 where all channels have the same. */
struct sum {
    const int32_t *factor, *bias, *multiplier, *thresholds;
    int32_t residual_zero, levels, row;
};

/* Of what is added, and of what comes out, one pointer of each pair is there, or none of what is added. */
struct ends {
    const uint8_t *added_counts;
    const int32_t *added_sums;
    uint8_t *counts;
    int32_t *sums;
};

static void finish(const struct sum *sum, const struct ends *ends, int32_t products, int32_t channel, int32_t index)
{
    int32_t total = sum->factor[channel] * products + sum->bias[channel];
    if (ends->added_counts)
        total += sum->multiplier[channel] * ((int32_t)ends->added_counts[index] - sum->residual_zero);
    if (ends->added_sums)
        total += sum->multiplier[channel] * ends->added_sums[index];
    if (ends->counts)
        ends->counts[index] = count_int32(sum->thresholds + channel * sum->row, sum->levels, total);
    else
        ends->sums[index] = total;
}
