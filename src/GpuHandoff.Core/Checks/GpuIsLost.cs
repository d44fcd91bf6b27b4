namespace GpuHandoff.Checks;

/// <summary>Seen only where the config space is asked: see <see cref="Survey.Surveyor.WithLost"/>.</summary>
static class GpuIsLost
{
    public const string Code = "gpu-is-lost";

    public const string Remedy = "switch the host off and on again: a reboot alone may not be enough";

    public static Check Check { get; } = new(
        Code, When: null,
        "All that is read from a GPU that has fallen off the bus is ones; no driver takes it, and a reset that is begun waits for it in vain.",
        q => from function in q.Gpu.Functions
             where function.IsLost
             select new Finding(Code, $"{q.Gpu} is lost", [$"the vendor ID of {function.Address} reads ffff"], Remedy));
}
