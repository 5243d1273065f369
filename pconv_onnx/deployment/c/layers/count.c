/* How many of `levels` thresholds, which ascend, are not above the sum. */
static uint8_t $name(const $in *thresholds, int32_t levels, $in sum)
{
    int32_t low = 0, high = levels;
    while (low < high) {
        const int32_t middle = (low + high) / 2;
        if (thresholds[middle] <= sum)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint8_t)low;
}
