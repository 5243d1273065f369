/* Adds products of values, less `zero`, by the weights of up to four outputs, which lie `apart`. Four at once read each
 * value only once. */
static void ${name}_add(const $in *values, const $weight *weights, int32_t apart, int32_t outputs, int32_t length,
                        int32_t zero, int32_t sums[4])
{
    if (outputs == 4) {
        const $weight *const second = weights + apart, *const third = second + apart, *const fourth = third + apart;
        int32_t a = 0, b = 0, c = 0, d = 0;
        for (int32_t i = 0; i < length; i++) {
            const int32_t value = values[i] - zero;
            a += value * weights[i];
            b += value * second[i];
            c += value * third[i];
            d += value * fourth[i];
        }
        sums[0] += a;
        sums[1] += b;
        sums[2] += c;
        sums[3] += d;
        return;
    }
    for (int32_t output = 0; output < outputs; output++)
        for (int32_t i = 0; i < length; i++)
            sums[output] += (values[i] - zero) * weights[output * apart + i];
}

/* A convolution: weights [outputs, taps, taps, channels / groups]. Values are less `zero`, which padding adds. */
static void $name(const struct window *window, const struct sum *sum, const $in *in, const $weight *weights,
                  int32_t zero, const uint8_t *added_counts, const int32_t *added_sums, uint8_t *counts, int32_t *sums)
{
    const struct window w = *window;
    const struct ends ends = {added_counts, added_sums, counts, sums};
    const int32_t inputs = w.channels / w.groups, of_group = w.outputs / w.groups;
    const int32_t apart = w.taps[0] * w.taps[1] * inputs;
    int32_t index = 0;
    for (int32_t sample = 0; sample < w.samples; sample++, in += (ptrdiff_t)w.height * w.width * w.channels)
        for (int32_t row = 0; row < w.rows; row++) {
            const int32_t top = row * w.strides[0] - w.padding[0];
            const int32_t first_y = first_tap(top, w.dilations[0]);
            const int32_t end_y = end_of_taps(top, w.dilations[0], w.taps[0], w.height);
            for (int32_t column = 0; column < w.columns; column++, index += w.outputs) {
                const int32_t left = column * w.strides[1] - w.padding[1];
                const int32_t first_x = first_tap(left, w.dilations[1]);
                const int32_t end_x = end_of_taps(left, w.dilations[1], w.taps[1], w.width);
                /* Taps side by side in the image are so in the weights. */
                const int32_t run = w.groups == 1 && w.dilations[1] == 1 && end_x > first_x ? end_x - first_x : 1;
                int32_t many;
                for (int32_t output = 0; output < w.outputs; output += many) {
                    const int32_t rest = of_group - output % of_group, group = output / of_group;
                    int32_t products[4] = {0, 0, 0, 0};
                    many = rest < 4 ? rest : 4;
                    for (int32_t y = first_y; y < end_y; y++)
                        for (int32_t x = first_x; x < end_x; x += run) {
                            const int32_t at = (top + y * w.dilations[0]) * w.width + left + x * w.dilations[1];
                            ${name}_add(in + (ptrdiff_t)at * w.channels + group * inputs,
                                        weights + (ptrdiff_t)output * apart + (y * w.taps[1] + x) * inputs, apart, many,
                                        run * inputs, zero, products);
                        }
                    for (int32_t i = 0; i < many; i++)
                        finish(sum, &ends, products[i], output + i, index + output + i);
                }
            }
        }
}
