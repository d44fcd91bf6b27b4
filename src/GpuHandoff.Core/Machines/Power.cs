namespace GpuHandoff.Machines;

/// <summary>What the kernel may do to a function that idles.</summary>
/// <param name="Control"><c>power/control</c>: <c>auto</c> may suspend it, <c>on</c> may not. Null: no such file.</param>
/// <param name="D3Cold"><c>d3cold_allowed</c>: whether it may lose power altogether. Null: no such file.</param>
public sealed record Power(string? Control, bool? D3Cold)
{
    /// <summary>
    /// Awake and under power. A card that fell into D3cold under vfio-pci may not come back before a cold start ("Unable to
    /// change power state from D3cold to D0").
    /// </summary>
    public Power Held() => new(Control is null ? null : "on", D3Cold is null ? null : false);

    public override string ToString() => string.Join(", ", new[]
    {
        Control,
        D3Cold switch { true => "D3cold allowed", false => "no D3cold", null => null },
    }.OfType<string>());
}
