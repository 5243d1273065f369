/* To the nearest integer, halves to the even one. From 2^23 on floats are integers. */
static float rounded(float value)
{
    if (!(value > -8388608.0f && value < 8388608.0f))
        return value;
    const float whole = (float)(int32_t)value, rest = value - whole;
    const int odd = (int32_t)value % 2 != 0;
    if (rest > 0.5f || (rest == 0.5f && odd))
        return whole + 1.0f;
    if (rest < -0.5f || (rest == -0.5f && odd))
        return whole - 1.0f;
    return whole;
}
