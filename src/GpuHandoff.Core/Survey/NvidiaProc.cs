using System.Globalization;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>Reads NVIDIA's own files below /proc/driver/nvidia (nvidia/nv-procfs.c).</summary>
public static class NvidiaProc
{
    // NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build  (...)
    // NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025
    public static DriverVersion? Version(string text)
    {
        foreach (var word in text.Split('\n')[0].Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            if (word.Contains('.') && DriverVersion.TryParse(word, out var version))
                return version;
        }
        return null;
    }

    // Model: 		 NVIDIA GeForce RTX 4090
    // GPU UUID: 	 GPU-????????-????-????-????-????????????          until the first open
    // Device Minor: 	 0
    public static (string? Model, string? Uuid, int? Minor) Information(string text)
    {
        string? Value(string key) => text.Split('\n')
            .FirstOrDefault(line => line.StartsWith(key + ":", StringComparison.Ordinal))?[(key.Length + 1)..].Trim();

        return (
            Value("Model"),
            Value("GPU UUID") is { } uuid && !uuid.Contains('?') ? uuid : null,
            int.TryParse(Value("Device Minor"), NumberStyles.None, CultureInfo.InvariantCulture, out var minor) ? minor : null);
    }
}
