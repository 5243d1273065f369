static void $name(const struct axes *axes, $out *out, const $left *left, const $right *right)
{
    struct place at = {{0}, 0, 0, 0};
    const int32_t count = axes->sizes[AXES - 1], step = axes->out[AXES - 1];
    const int32_t left_step = axes->left[AXES - 1], right_step = axes->right[AXES - 1];
    do
        for (int32_t i = 0; i < count; i++) {
            const $left a = left[at.left + i * left_step];
            const $right b = right[at.right + i * right_step];
            out[at.out + i * step] = $expression;
        }
    while (next(axes, &at));
}
