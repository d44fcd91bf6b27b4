namespace GpuHandoff.Lab.VirtualGpu;

public enum TrafficKind
{
    BarRead,
    BarWrite,
    Reset,
}

/// <summary>Something that the guest did to a function.</summary>
/// <param name="Place">Where: <c>bar0+a00/4</c>, or for a reset how: <c>flr</c>, <c>af_flr</c>, <c>machine</c>.</param>
public sealed record Traffic(TimeSpan At, TrafficKind Kind, string Place, ulong Value)
{
    public override string ToString() => Kind switch
    {
        TrafficKind.Reset => $"{At.TotalSeconds:f3} reset by {Place}",
        TrafficKind.BarRead => $"{At.TotalSeconds:f3} read {Place} = {Value:x}",
        _ => $"{At.TotalSeconds:f3} write {Place} = {Value:x}",
    };
}
