/* Rounded to an integer from `low` to `high`, which is also what becomes of what is no number: `low`. */
static int32_t rounded_within(float value, int32_t low, int32_t high)
{
    if (!(value > (float)low))
        return low;
    return value < (float)high ? (int32_t)rounded(value) : high;
}
