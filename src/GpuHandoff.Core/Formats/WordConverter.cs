using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using GpuHandoff.Machines;

namespace GpuHandoff.Formats;

/// <summary>A value that is one word in JSON, the same word as everywhere else.</summary>
public abstract class WordConverter<T>(string kind) : JsonConverter<T>
{
    public override T Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        reader.TokenType == JsonTokenType.String && TryParse(reader.GetString()!, out var value)
            ? value
            : throw new JsonException($"this is no {kind}");

    public override void Write(Utf8JsonWriter writer, T value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value!.ToString());

    protected abstract bool TryParse(string text, out T value);
}

/// <summary><c>"0000:05:00.0"</c></summary>
public sealed class AddressConverter() : WordConverter<PciAddress>("PCI address")
{
    protected override bool TryParse(string text, out PciAddress value) => PciAddress.TryParse(text, out value);
}

/// <summary><c>"10de:2684"</c></summary>
public sealed class IdConverter() : WordConverter<PciId>("vendor and device ID")
{
    protected override bool TryParse(string text, out PciId value)
    {
        value = default;
        if (text.Split(':') is not [var vendor, var device]
            || !int.TryParse(vendor, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var v)
            || !int.TryParse(device, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var d))
        {
            return false;
        }
        value = new(v, d);
        return true;
    }
}

/// <summary><c>"030000"</c></summary>
public sealed class ClassConverter() : WordConverter<PciClass>("PCI class")
{
    protected override bool TryParse(string text, out PciClass value)
    {
        var ok = int.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var code);
        value = new(code);
        return ok;
    }
}

/// <summary><c>"580.126.20"</c></summary>
public sealed class VersionConverter() : WordConverter<DriverVersion>("driver version")
{
    protected override bool TryParse(string text, out DriverVersion value) => DriverVersion.TryParse(text, out value);
}
